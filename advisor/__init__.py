"""finetune-advisor: memory and time of LoRA, QLoRA, DoRA and full fine-tuning, before anything is rented."""
