package command

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
)

// changeFlags are the flags of `fork`, besides --image, that change a pod template.
type changeFlags struct {
	env, containers, resources  []string
	command, args               []string
	serviceAccount              string
	patch, patchFile, patchType string
}

func (f *changeFlags) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.env, "env", nil, "Environment variable to set, as NAME=VALUE, to take from a key of a Secret or ConfigMap, as NAME@secret/SECRET/KEY or NAME@configmap/CONFIGMAP/KEY, or to take away, as NAME-. Repeat it for further ones; of several for one variable the last counts.")
	flags.StringArrayVarP(&f.containers, "container", "c", nil, "Container that --env, --command, --args, --resources and an --image without a container are for. Repeat it for further ones. Without it, --env is for all containers, the others for the only or main one.")
	flags.StringArrayVar(&f.command, "command", nil, `Command of the container: repeated, a word each, or once as a list, ["sh", "-c", "..."]. [] is the image's own.`)
	flags.StringArrayVar(&f.args, "args", nil, "Arguments of the container's command, in the same form as --command.")
	flags.StringArrayVar(&f.resources, "resources", nil, "Resources of the container, as requests.NAME=QUANTITY or limits.NAME=QUANTITY with commas between; NAME- takes one away.")
	flags.StringVar(&f.serviceAccount, "service-account", "", "Service account that the fork's pods run as.")
	flags.StringVarP(&f.patch, "patch", "p", "", "Patch of the pod template, JSON or YAML. The other flags are applied after it.")
	flags.StringVar(&f.patchFile, "patch-file", "", "File that holds the patch of the pod template; - is the standard input.")
	flags.StringVar(&f.patchType, "patch-type", forks.PatchStrategic, `Type of the patch: "strategic", "merge" or "json".`)
	completeValues(cmd, "patch-type", forks.PatchStrategic, forks.PatchMerge, forks.PatchJSON)
}

// parse converts the flags to a change. Its errors are usage errors.
func (f *changeFlags) parse(cmd *cobra.Command, in io.Reader) (c forks.Change, err error) {
	c.Containers, c.ServiceAccount = f.containers, f.serviceAccount
	given := cmd.Flags().Changed
	if given("service-account") && f.serviceAccount == "" {
		return c, errors.New(`--service-account "" must not be empty`)
	}
	for _, s := range f.env {
		e, err := forks.ParseEnv(s)
		if err != nil {
			return c, err
		}
		c.Env = append(c.Env, e)
	}
	for _, s := range f.resources {
		r, err := forks.ParseResources(s)
		if err != nil {
			return c, err
		}
		c.Resources = append(c.Resources, r...)
	}
	if given("command") {
		if c.Command, err = forks.ParseWords("--command", f.command); err != nil {
			return c, err
		}
	}
	if given("args") {
		if c.Args, err = forks.ParseWords("--args", f.args); err != nil {
			return c, err
		}
	}
	switch {
	case given("patch") && given("patch-file"):
		return c, errors.New("--patch and --patch-file: give only one of them")
	case given("patch"):
		c.Patch, err = forks.ParsePatch("--patch", f.patchType, f.patch)
	case given("patch-file"):
		c.Patch, err = f.readPatch(in)
	case given("patch-type"):
		return c, errors.New("--patch-type says how to read --patch or --patch-file, and neither is given")
	}
	return c, err
}

func (f *changeFlags) readPatch(in io.Reader) (*forks.TemplatePatch, error) {
	var text []byte
	var err error
	if f.patchFile == "-" {
		text, err = io.ReadAll(in)
	} else {
		text, err = os.ReadFile(f.patchFile)
	}
	if err != nil {
		return nil, fmt.Errorf("--patch-file: %w", err)
	}
	return forks.ParsePatch("--patch-file "+f.patchFile, f.patchType, string(text))
}
