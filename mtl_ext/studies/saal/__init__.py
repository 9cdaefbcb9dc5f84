"""Graffeuille et al., Enabling Asymmetric Knowledge Transfer in Multi-Task Learning with Self-Auxiliaries (SAAL)."""
