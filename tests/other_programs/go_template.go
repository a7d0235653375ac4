// What Go's own text/template writes: `go run go_template.go < JOB.json`, as Ollama calls it.
// JOB has `template` and `messages` (lists of role and content).
package main

import (
	"encoding/json"
	"os"
	"text/template"
)

type message struct{ Role, Content string }

func main() {
	var job struct {
		Template string
		Messages []message
	}
	if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil {
		panic(err)
	}
	parsed := template.Must(template.New("chat").Parse(job.Template))
	if err := parsed.Execute(os.Stdout, map[string]any{"Messages": job.Messages}); err != nil {
		panic(err)
	}
}
