"""Runs a model by onnxruntime, without MXNet.

    pip install onnx onnxruntime
    python export.py published/mnist-lenet-stn --onnx stn.onnx
    python -m examples.run_onnx stn.onnx
"""
import argparse

import numpy as np
import onnxruntime

parser = argparse.ArgumentParser()
parser.add_argument("model", help="ONNX file")
model = parser.parse_args().model

images = np.zeros((1, 1, 28, 28), np.float32)  # (N, C, H, W), from 0 (black) to 1 (white)
images[:, :, 5:23, 13:16] = 1  # an upright stroke: a one

session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
answers, = session.run(None, {"data": images})  # (N, classes), probabilities

print(f"It is a {answers[0].argmax()}, with probability {answers[0].max():.3f}")
