"""Text to numbers: transformer encoders, their ONNX exports, and nothing about users or items."""
