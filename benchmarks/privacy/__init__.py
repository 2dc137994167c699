"""The privacy gate's benchmark."""
