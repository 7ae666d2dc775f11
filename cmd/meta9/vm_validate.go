package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"meta9/fs/vm/ordjson"
	"meta9/fs/vm/payload"
)

// validations are what a payload may be for.
var validations = map[string]payload.Action{"create": payload.ForCreate, "update": payload.ForUpdate}

// newVMValidate is `meta9 vm validate`, which needs no server.
func newVMValidate(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "validate create|update [BRAND] [-f FILE]",
		Short: "check a payload by vmadm's rules",
		Long: `Check whether vmadm would take a payload for 'create' or 'update', for VMs of the
BRAND (of create by default the payload's own). If so the exit code is 0. If not it is
1, and standard error has a JSON object with bad_brand, or with one or more of
bad_properties (which the brand has not, there), bad_values and missing_properties.
It asks no server. meta9d itself asks for less: 'vm create' takes a payload without
brand and image_uuid, and properties that vmadm does not know.`,
		Example: `meta9 vm validate create -f web.json
echo '{"quota": 20}' | meta9 vm validate update kvm`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return []string{"create", "update"}, cobra.ShellCompDirectiveNoFileComp
			case 1:
				return payload.Brands(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		Args: cobra.MaximumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return vmadmError{code: exitUsage, text: "Will not validate without a valid action: create or update."}
			}
			action, known := validations[args[0]]
			switch {
			case !known:
				return vmadmError{code: exitUsage, text: "Will not validate without a valid action: create or update, not " + args[0] + "."}
			case len(args) == 1 && action == payload.ForUpdate:
				return vmadmError{code: exitUsage, text: "Will not validate without a valid action and brand."}
			}
			text, err := a.payload(file, "the VM")
			if err != nil {
				return err
			}
			brand := ""
			if len(args) > 1 {
				brand = args[1]
			} else if v, err := ordjson.Parse(text); err == nil {
				brand = v.Members.Text("brand")
			}
			return a.validate(action, args[0], brand, text)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "read the payload from `FILE` (default: standard input)")
	return cmd
}

// validate says on standard error what is wrong with a payload, as vmadm does.
func (a *app) validate(action payload.Action, name, brand string, text []byte) error {
	report := payload.Report{MissingProperties: []string{"brand"}}
	if brand != "" {
		var err error
		if report, err = payload.Validate(action, brand, text); err != nil {
			return err
		}
	}
	if report.OK() {
		fmt.Fprintf(a.err, "VALID %s payload for %s brand VMs.\n", name, printable(brand))
		return nil
	}
	faults, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	a.code = exitFailed
	_, err = fmt.Fprintf(a.err, "%s\n", faults)
	return err
}
