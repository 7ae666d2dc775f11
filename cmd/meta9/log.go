package main

import (
	"io"
	"time"

	"github.com/rs/zerolog"
)

// linesAtOnce is how many lines of the log a keeper or an agent may write in a minute: a
// host that is gone again and again is not worth more.
const linesAtOnce = 10

// textLog is a log of lines of text, which whoever writes to it bounds.
func textLog(to io.Writer) zerolog.Logger {
	return zerolog.New(zerolog.ConsoleWriter{Out: to, NoColor: true, PartsExclude: []string{zerolog.TimestampFieldName, zerolog.LevelFieldName}})
}

// lineLog is the log of what runs for long: lines of text, at most linesAtOnce a minute.
func lineLog(to io.Writer) zerolog.Logger {
	return textLog(to).Sample(&zerolog.BurstSampler{Burst: linesAtOnce, Period: time.Minute})
}
