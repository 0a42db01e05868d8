"""The reference pages, made from the code that they describe. A test holds the committed ones to it."""
