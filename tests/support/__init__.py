"""What tests share: a real PostgreSQL, a hub in this process or in processes of its own, and its users."""
