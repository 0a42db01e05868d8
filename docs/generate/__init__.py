"""The reference and the page of methods, made from the code. A test holds the committed ones to it."""
