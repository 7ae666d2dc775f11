package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meta9/fs/vm"
	"meta9/session/client"
)

// completeTime is how long a shell may be kept waiting for names.
const completeTime = 2 * time.Second

type completer = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// completePaths completes the first n arguments, or all if n is 0, to paths in the
// tree. Where there is no server it completes nothing.
func (a *app) completePaths(n int) completer {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if n != 0 && len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		dir := typed[:strings.LastIndexByte(typed, '/')+1]
		var names []string
		for _, i := range a.names(cmd, dir) {
			names = append(names, folderName(i.Name, i.IsDir()))
		}
		return completed(dir, typed, names)
	}
}

// folderName is a name, with a slash behind it if it is a folder's.
func folderName(name string, isDir bool) string {
	if isDir {
		return name + "/"
	}
	return name
}

// completed are those of the names in dir that what was typed may become.
func completed(dir, typed string, names []string) (out []string, _ cobra.ShellCompDirective) {
	for _, name := range names {
		if strings.HasPrefix(dir+name, typed) {
			out = append(out, dir+name)
		}
	}
	if len(out) == 1 && strings.HasSuffix(out[0], "/") {
		return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeUUID completes the first argument to the UUID of a VM.
func (a *app) completeUUID(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if len(args) == 0 {
		for _, i := range a.names(cmd, "vms") {
			if strings.HasPrefix(i.Name, typed) {
				out = append(out, i.Name)
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeVM completes the first argument to the UUID or the alias of a VM.
func (a *app) completeVM(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	out, directive := a.completeUUID(cmd, args, typed)
	if len(args) == 0 {
		for _, i := range a.names(cmd, "names") {
			if alias, err := vm.KeyName(i.Name); err == nil && strings.HasPrefix(alias, typed) {
				out = append(out, alias)
			}
		}
	}
	return out, directive
}

// completeVMs is completeVM of each argument.
func (a *app) completeVMs(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.completeVM(cmd, nil, typed)
}

// names lists a folder for a shell that waits.
func (a *app) names(cmd *cobra.Command, dir string) []client.Info {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	c, err := a.connect(ctx, client.Options{})
	if err != nil {
		return nil
	}
	defer c.Close()
	list, _ := c.ReadDir(ctx, dir)
	return list
}
