package experiment

import (
	"encoding/json"
	"fmt"
)

// Encode returns the report as JSON of at most `most` bytes. It drops what does not fit, details first and never
// verdicts, and sets Trimmed. r itself does not change.
func (r *Report) Encode(most int) ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil || len(data) <= most {
		return data, err
	}
	var short Report
	if err := json.Unmarshal(data, &short); err != nil {
		return nil, err
	}
	short.Trimmed = true
	short.Summary = append(short.Summary, "There were more details than the cluster keeps of a report.")
	for _, trim := range []func(*Result){
		func(x *Result) { x.Log = x.Log[max(0, len(x.Log)-5):] },
		func(x *Result) { x.Contract.keep(3) },
		func(x *Result) { x.Log = nil },
		func(x *Result) {
			if x.Measured != nil {
				x.Measured.Shares, x.Measured.Examples = nil, nil
			}
		},
		func(x *Result) { x.Contract.keep(0); x.Bystanders = nil },
		func(x *Result) {
			x.Reasons = x.Reasons[:min(len(x.Reasons), 1)]
			for i := range x.Reasons {
				x.Reasons[i].Message = clause(x.Reasons[i].Message)
			}
		},
	} {
		for i := range short.Variants {
			for j := range short.Variants[i].Results {
				trim(&short.Variants[i].Results[j])
			}
		}
		if data, err = json.Marshal(&short); err != nil || len(data) <= most {
			return data, err
		}
	}
	return nil, fmt.Errorf("experiment %s: its report is of %d bytes without any detail, and %d is most: test fewer variants, or by fewer checks", r.ID, len(data), most)
}

// keep drops all findings but the first n.
func (c *ContractReport) keep(n int) {
	if c == nil || len(c.Findings) <= n {
		return
	}
	c.More += len(c.Findings) - n
	c.Findings = c.Findings[:n]
}
