package command

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newVersion(t *tool) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the versions of client, webhook and routers", RunE: func(*cobra.Command, []string) error {
		c, err := t.client()
		if err != nil {
			return err
		}
		v, err := c.Kube.Discovery().ServerVersion()
		if err != nil {
			return err
		}
		fmt.Fprintln(t.Out, v)
		return nil
	}}
}
