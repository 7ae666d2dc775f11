package main

import "os"

// The colours of a terminal: ECMA-48's numbers.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
)

// coloured tells whether output may have colours: on a terminal only, and not where
// NO_COLOR asks for none.
func (a *app) coloured() bool { return a.tty && os.Getenv("NO_COLOR") == "" }

// paint is a word in a colour; "" is none.
func paint(colour, word string) string {
	if colour == "" {
		return word
	}
	return "\x1b[" + colour + "m" + word + "\x1b[0m"
}

// stateColours are those of the states of VMs; others have none.
var stateColours = map[string]string{
	"running": green,
	"paused":  yellow, "prelaunch": yellow, "provisioning": yellow, "incomplete": yellow, "stopping": yellow,
	"failed": red, "io-error": red, "internal-error": red, "guest-panicked": red, "unresponsive": red,
}

// eventColours are those of what happens to VMs.
var eventColours = map[string]string{"create": green, "delete": red}
