"""Operations on models, endpoint configurations and endpoints."""
