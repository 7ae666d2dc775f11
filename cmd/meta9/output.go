package main

import (
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"
)

// outputJSON is the one other form of what commands print for people.
const outputJSON = "json"

// jsonFlag is whether -o json was given.
type jsonFlag bool

// String is the flag's text; "" where it is not given.
func (f *jsonFlag) String() string {
	if *f {
		return outputJSON
	}
	return ""
}

// Set refuses a format that there is not.
func (f *jsonFlag) Set(text string) error {
	if text != "" && text != outputJSON {
		return errors.New("there is json")
	}
	*f = text == outputJSON
	return nil
}

// Type is pflag's.
func (f *jsonFlag) Type() string { return "string" }

// outputFlag adds -o.
func outputFlag(cmd *cobra.Command, asJSON *jsonFlag) {
	cmd.Flags().VarP(asJSON, "output", "o", "print as `FORMAT`: json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputJSON}, cobra.ShellCompDirectiveNoFileComp))
}

// printValue prints v as JSON.
func (a *app) printValue(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.printJSON(b)
}
