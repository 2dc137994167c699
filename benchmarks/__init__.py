"""What is measured, one package an engine; each writes its figures under build/."""
