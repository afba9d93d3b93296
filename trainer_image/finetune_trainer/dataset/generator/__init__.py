"""Questions and answers that a language model writes about sections; nothing it says is taught unchecked."""
