"""What a user's process needs to talk to Tutelage. No torch, no redis."""
