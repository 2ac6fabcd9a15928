"""Who computes vectors. Each module here holds one provider or one of its parts."""
