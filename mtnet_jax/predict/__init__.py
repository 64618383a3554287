"""Images, folders of images and videos to heads, and heads drawn on them."""
