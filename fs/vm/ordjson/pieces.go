package ordjson

import "unicode/utf8"

// Pieces gathers JSON text and gives it away in pieces of about one size, so that a
// text of any length takes the memory of one piece.
type Pieces struct {
	Text []byte // what is gathered and not given away yet

	size int
	give func([]byte) error // nil: all stays in Text
	err  error              // what it failed with first; from then on nothing is given
}

// NewPieces begins with text. give gets each piece of about size bytes, and must not
// keep it; where it fails, what comes after that goes nowhere.
func NewPieces(text []byte, size int, give func([]byte) error) *Pieces {
	return &Pieces{Text: text, size: size, give: give}
}

// Err is what give failed with first.
func (p *Pieces) Err() error { return p.err }

// Cut gives away what is gathered, if that is enough for a piece. The last byte stays,
// since AppendName looks at it.
func (p *Pieces) Cut() {
	if p.give == nil || len(p.Text) < p.size {
		return
	}
	last := len(p.Text) - 1
	if p.err == nil {
		p.err = p.give(p.Text[:last])
	}
	p.Text = append(p.Text[:0], p.Text[last])
}

// Value appends a value as Value.AppendJSON does.
func (p *Pieces) Value(v Value) {
	switch {
	case p.give == nil:
		p.Text = v.AppendJSON(p.Text)
	case v.Kind == String && len(v.Text) > p.size:
		p.long(v.Text)
	case v.Kind == Array:
		p.Text = append(p.Text, '[')
		for i := range v.Items {
			if i > 0 {
				p.Text = append(p.Text, ',')
			}
			p.Value(v.Items[i])
		}
		p.Text = append(p.Text, ']')
	case v.Kind == Object:
		p.Text = append(p.Text, '{')
		for i := range v.Members {
			p.Text = AppendName(p.Text, v.Members[i].Name)
			p.Value(v.Members[i].Value)
		}
		p.Text = append(p.Text, '}')
	default:
		p.Text = v.AppendJSON(p.Text)
	}
	p.Cut()
}

// long appends a string a part at a time, none of which ends within a character.
func (p *Pieces) long(s string) {
	p.Text = append(p.Text, '"')
	for len(s) > 0 {
		n := min(len(s), p.size)
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n++
		}
		start := len(p.Text)
		p.Text = appendString(p.Text, s[:n])
		// Without its quotes.
		p.Text = append(p.Text[:start], p.Text[start+1:len(p.Text)-1]...)
		s = s[n:]
		p.Cut()
	}
	p.Text = append(p.Text, '"')
}
