"""Parents: their steps, and their children, which are cancelled, resumed and deleted with them."""
