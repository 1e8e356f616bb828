"""Import networks from torchvision, timm, the Hugging Face Hub, MLflow and URLs, and export them."""
