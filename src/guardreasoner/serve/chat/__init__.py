"""The chat proxy: messages to exchanges, streams, and what is sent on."""
