"""The obvious alternative to a served ensemble: the networks in PyTorch, eager, behind FastAPI.

Run as `python _fastapi_server.py PRESET WEIGHTS PORT`, where WEIGHTS is what `torch.save` wrote of the networks.
PyTorch uses all cores for each image, and FastAPI's threads take the requests, as both do by themselves.
"""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import torch
import uvicorn
from _served import untrained
from fastapi import Body, FastAPI, HTTPException
from PIL import Image

from mbdcnn.preprocessing import MASK_THRESHOLD, ImageError, decode_image, prepare, restore


def build(preset: str, weights: str) -> FastAPI:
    """The service: `POST /predict` with an encoded image, probabilities and a PNG mask (base64) as JSON."""
    networks, preprocessing = untrained(preset)
    networks.load_state_dict(torch.load(weights, weights_only=True))
    service = FastAPI()

    @service.post("/predict")
    def predict(data: bytes = Body(media_type="application/octet-stream")) -> dict[str, Any]:
        try:
            image = decode_image(data)
        except ImageError as error:
            raise HTTPException(400, str(error)) from None
        with torch.inference_mode():
            said = networks(torch.from_numpy(prepare(image, preprocessing))[None])
        lesion = restore(said.lesion_probability[0, 0].numpy(), *image.shape[:2]) > MASK_THRESHOLD
        buffer = io.BytesIO()
        Image.fromarray(lesion.astype("uint8") * 255).save(buffer, "PNG", compress_level=1)
        return {
            "probabilities": said.probabilities[0].tolist(),
            "mask_png": base64.b64encode(buffer.getvalue()).decode(),
        }

    @service.get("/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    return service


if __name__ == "__main__":
    _, preset_name, weights_file, port = sys.argv
    uvicorn.run(build(preset_name, weights_file), host="127.0.0.1", port=int(port), log_level="warning")
