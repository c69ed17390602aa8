// Command troupe-runner starts and kills process trees for trouped.
package main

func main() {}
