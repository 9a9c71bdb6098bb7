/** The promises of the design that a problem breaks: it begins with them. */
export const promisesOf = (problem: string): string[] =>
  /^P\d+(?:\/P\d+)*/.exec(problem)?.[0].split('/') ?? []
