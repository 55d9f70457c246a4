"""The least likely rows of tables, with the reasons and what people found about them."""
