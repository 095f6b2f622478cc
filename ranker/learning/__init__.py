"""Online learning: the joint layers go on learning from feedback while they serve, and serve what gained."""
