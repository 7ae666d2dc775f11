package mumble

// Text spells a message with any mac.
func (m Message) Text(mac [MacLen]byte) string { return m.text(mac) }
