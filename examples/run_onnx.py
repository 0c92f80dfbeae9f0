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

session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
shape = session.get_inputs()[0].shape[1:]  # (C, H, W), for MNIST (1, 28, 28)
images = np.zeros((1, *shape), np.float32)  # from 0 (black) to 1 (white)
images[:, :, 5:-5, shape[2] // 2 - 1:shape[2] // 2 + 2] = 1  # an upright stroke: a one

answers, = session.run(None, {"data": images})  # (N, classes), probabilities

print(f"It is a {answers[0].argmax()}, with probability {answers[0].max():.3f}")
