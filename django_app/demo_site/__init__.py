"""A small Django site around finetune_chat: everything is set by environment variables, nothing is stored."""
