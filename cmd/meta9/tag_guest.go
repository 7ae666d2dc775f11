//go:build guest || plan9

package main

import "github.com/spf13/cobra"

var hostCommands []func(*app) *cobra.Command
