"""Runs a model by onnxruntime, without MXNet.

    pip install onnx onnxruntime
    python export.py published/mnist-lenet-stn --onnx stn.onnx
    python -m examples.run_onnx stn.onnx
"""
import sys

import numpy as np
import onnxruntime

images = np.zeros((1, 1, 28, 28), np.float32)  # (N, C, H, W), from 0 (black) to 1 (white)
images[:, :, 5:23, 13:16] = 1  # an upright stroke: a one

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
answers, = session.run(None, {"data": images})  # (N, classes), probabilities

print(f"It is a {answers[0].argmax()}, with probability {answers[0].max():.3f}")
