package transcript

const helperEnv = "TRANSCRIPT_TEST_HELPER"

func runHelper(string) int { return 0 }
