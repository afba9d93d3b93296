"""4-bit QLoRA on transformers, peft and bitsandbytes with a loop of our own. Must not know who made the examples."""
