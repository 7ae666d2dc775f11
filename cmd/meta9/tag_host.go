//go:build !guest && !plan9

package main

import "github.com/spf13/cobra"

// hostCommands are the commands that only a host needs. A client for guests, which is to
// be small, is built without them (tag guest); Plan 9 has no library for their images.
var hostCommands = []func(*app) *cobra.Command{newWeb, newNoCloudImage, newDoctor, newExport, newImport, newFleet}
