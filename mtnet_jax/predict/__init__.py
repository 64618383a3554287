"""Pictures, folders of pictures and videos to heads, and heads drawn on them."""
