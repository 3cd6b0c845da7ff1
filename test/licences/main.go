// Command licences writes NOTICE: the licences and notices of the Go modules that the program
// links. It fails if the program may not link one of them because of its licence. Its tests check
// the licences of all other modules and packages that the repository refers to.
//
//	go run ./test/licences
//
// The working directory must be the root of the repository.
package main

import (
	"fmt"
	"os"
)

func main() {
	text, err := notice(".")
	if err == nil {
		err = os.WriteFile("NOTICE", []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}
