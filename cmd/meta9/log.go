package main

import (
	"io"
	"time"

	"github.com/rs/zerolog"
)

// linesAtOnce is how many lines of the log a keeper or an agent may write in a minute: a
// host that is gone again and again is not worth more.
const linesAtOnce = 10

// lineLog is the log of what runs for long: lines of text, at most linesAtOnce a minute.
func lineLog(to io.Writer) zerolog.Logger {
	w := zerolog.ConsoleWriter{Out: to, NoColor: true, PartsExclude: []string{zerolog.TimestampFieldName, zerolog.LevelFieldName}}
	return zerolog.New(w).Sample(&zerolog.BurstSampler{Burst: linesAtOnce, Period: time.Minute})
}
