"""What AWS's Hugging Face images serve with, as far as handlers import it."""
