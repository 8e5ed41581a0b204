// Errors as they travel: a code, what happened, and what to do.

const RETRYABLE = new Set(["source-unavailable", "locked", "unavailable", "bus-unavailable", "garbled", "corrupt", "attempt-over"]);
const REJECTS = new Set(["denied", "unknown-key", "unknown-plugin", "bad-options", "invalid-command"]);
const BY_ERRNO = {
  ENOENT: ["source-missing", "the path is looked for where the source service runs"],
  EACCES: ["source-denied", "see what the user of the source service may do there"],
  EPERM: ["source-denied", "see what the user of the source service may do there"],
  EEXIST: ["already-exists", "restore to another place, or with overwrite"],
  ENOSPC: ["no-space", "free space there"],
  EDQUOT: ["no-space", "free space there"],
};

export class Problem extends Error {
  constructor(code, message, hint = "") {
    super(message);
    Object.assign(this, { code, hint });
  }

  /** Whatever was thrown, as a Problem; what nobody expected is `internal`, and only the log says more. */
  static of(error) {
    if (error instanceof Problem) return error;
    const [code, hint] = BY_ERRNO[error.code] ?? [];
    if (code) return new Problem(code, error.message, hint);
    console.error(error);
    return new Problem("internal", `unexpected ${error.name} in the source service`, "its log says more");
  }

  get rejects() {
    return REJECTS.has(this.code);
  }

  get info() {
    return { code: this.code, message: this.message, hint: this.hint, retryable: RETRYABLE.has(this.code) };
  }
}
