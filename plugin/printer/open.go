package printer

import (
	"encoding/json"
	"fmt"
	"io"
)

// Opened are the addresses of a sandbox that `open` serves.
type Opened struct {
	Sandbox     string `json:"sandbox"`
	Namespace   string `json:"namespace"`
	Key         string `json:"key"`
	Service     string `json:"service"`
	URL         string `json:"url"`
	BaselineURL string `json:"baselineURL"`
	PlainURL    string `json:"plainURL"` // for programs that do not resolve the host names of the others
	Resolves    bool   `json:"resolves"` // this machine resolves the host names
	Port        uint16 `json:"port"`
}

// JSON prints the addresses as one object.
func (o Opened) JSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(o)
}

// Text prints the addresses.
func (o Opened) Text(out io.Writer) {
	fmt.Fprintf(out, "sandbox %s: %s with key %s\n", o.Sandbox, o.Service, o.Key)
	fmt.Fprintf(out, "  %s\n", o.URL)
	fmt.Fprintf(out, "baseline:\n  %s\n", o.BaselineURL)
	if !o.Resolves {
		fmt.Fprintf(out, "browsers and curl know these names, this machine's resolver does not; for other programs:\n  %s\n",
			o.PlainURL)
	}
}
