package main

import (
	"encoding/json"

	"github.com/spf13/cobra"
)

// outputJSON is the one other form of what commands print for people.
const outputJSON = "json"

// outputFlag adds -o.
func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "print as `FORMAT`: json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputJSON}, cobra.ShellCompDirectiveNoFileComp))
}

// checkOutput refuses a format that there is not.
func checkOutput(output string) error {
	if output != "" && output != outputJSON {
		return misused("-o %s: there is json", output)
	}
	return nil
}

// printValue prints v as JSON.
func (a *app) printValue(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.printJSON(b)
}
