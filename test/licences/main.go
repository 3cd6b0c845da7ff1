// Command licences writes NOTICE: the licences and notices of the Go modules that the program
// links. It fails where one of them is not among the licences that the program may link. Its
// tests check the licences of everything else that the repository refers to.
//
//	go run ./test/licences
//
// It is run in the root of the repository.
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
