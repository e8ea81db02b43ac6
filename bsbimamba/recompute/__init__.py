"""Parts of a network whose backward passes are written by hand, to say what is kept for them."""
