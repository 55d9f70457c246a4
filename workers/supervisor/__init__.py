"""The supervisor: takes jobs and watches over their trainers."""
