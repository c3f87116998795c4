// oauth4webapi, certified by the OpenID Foundation: every request and every answer by itself, and the resource
// server's own judgement of our access tokens (RFC 9068, RFC 9449). Nothing is relaxed.
import * as oauth from 'oauth4webapi'
import { person, refusal, serve } from './wire.mjs'

const REDIRECT = 'http://127.0.0.1:51235/callback'

async function discovered(given) {
  const issuer = new URL(given.issuer)
  const answer = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' })
  return oauth.processDiscoveryResponse(issuer, answer)
}

async function started(given) {
  const as = await discovered(given)
  const client = { client_id: given.client }
  const auth = given.secret ? oauth.ClientSecretBasic(given.secret) : oauth.None()
  const options = given.alg ? { DPoP: oauth.DPoP(client, await oauth.generateKeyPair(given.alg)) } : undefined
  return { as, client, auth, options }
}

/** Once more with the server's nonce, when the server wants one: RFC 9449 section 8. */
async function insisted(asking) {
  try {
    return await asking()
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error
    return asking()
  }
}

/** What a resource server that is not ours says of an access token of ours. */
async function judged({ as, client, options }, given, token) {
  const url = new URL('/v1/models', given.issuer)
  const sent = []
  const answer = await oauth.protectedResourceRequest(token, 'GET', url, undefined, undefined, {
    ...options,
    [oauth.customFetch]: (target, init) => {
      sent.push(new Request(target, { headers: init.headers, method: init.method }))
      return fetch(target, init)
    },
  })
  const claims = await oauth.validateJwtAccessToken(as, sent.at(-1), `${given.issuer}/v1`, {
    requireDPoP: Boolean(options),
    signingAlgorithms: ['RS256', 'PS256', 'ES256', 'Ed25519'],
  })
  return { status: answer.status, sub: claims.sub, client: claims.client_id, bound: Boolean(claims.cnf) }
}

await serve({
  async code(given) {
    const all = await started(given)
    const { as, client, auth, options } = all
    const verifier = oauth.generateRandomCodeVerifier()
    const state = oauth.generateRandomState()
    const asked = new URLSearchParams({
      client_id: given.client,
      redirect_uri: REDIRECT,
      response_type: 'code',
      scope: 'inference',
      state,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    })
    const page = new URL(as.authorization_endpoint)
    if (given.push) {
      const pushed = await insisted(async () => {
        const answer = await oauth.pushedAuthorizationRequest(as, client, auth, asked, options)
        return oauth.processPushedAuthorizationResponse(as, client, answer)
      })
      page.search = new URLSearchParams({ client_id: given.client, request_uri: pushed.request_uri })
    } else {
      page.search = asked
    }
    const back = new URL(await person({ authorize: page.href }))
    const answered = oauth.validateAuthResponse(as, client, back, state)
    const tokens = await insisted(async () => {
      const asking = oauth.authorizationCodeGrantRequest
      const answer = await asking(as, client, auth, answered, REDIRECT, verifier, options)
      return oauth.processAuthorizationCodeResponse(as, client, answer)
    })
    const found = { kind: tokens.token_type, judged: await judged(all, given, tokens.access_token) }
    const renewed = await insisted(async () => {
      const answer = await oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token, options)
      return oauth.processRefreshTokenResponse(as, client, answer)
    })
    found.renewed = await judged(all, given, renewed.access_token)
    const gone = await oauth.revocationRequest(as, client, auth, renewed.refresh_token)
    await oauth.processRevocationResponse(gone)
    found.revoked = await refusal(() =>
      insisted(async () => {
        const answer = await oauth.refreshTokenGrantRequest(as, client, auth, renewed.refresh_token, options)
        return oauth.processRefreshTokenResponse(as, client, answer)
      }),
    )
    return found
  },

  async refused(given) {
    const { as, client } = await started(given)
    const page = new URL(as.authorization_endpoint)
    const state = oauth.generateRandomState()
    page.search = new URLSearchParams({
      client_id: given.client,
      redirect_uri: REDIRECT,
      response_type: 'code',
      state,
      code_challenge: await oauth.calculatePKCECodeChallenge(oauth.generateRandomCodeVerifier()),
      code_challenge_method: 'S256',
    })
    const back = new URL(await person({ refuse: page.href }))
    return refusal(async () => oauth.validateAuthResponse(as, client, back, state))
  },

  async device(given) {
    const all = await started(given)
    const { as, client, auth, options } = all
    const asked = await oauth.deviceAuthorizationRequest(as, client, auth, { scope: 'inference' })
    const begun = await oauth.processDeviceAuthorizationResponse(as, client, asked)
    const redeem = () =>
      insisted(async () => {
        const answer = await oauth.deviceCodeGrantRequest(as, client, auth, begun.device_code, options)
        return oauth.processDeviceCodeResponse(as, client, answer)
      })
    const pending = await refusal(redeem)
    const hasty = await refusal(redeem)
    await person({ device: begun.user_code })
    const tokens = await redeem()
    const twice = await refusal(redeem)
    return { pending, hasty, twice, kind: tokens.token_type, judged: await judged(all, given, tokens.access_token) }
  },

  async credentials(given) {
    const all = await started(given)
    const { as, client, auth, options } = all
    const tokens = await insisted(async () => {
      const asked = new URLSearchParams({ scope: 'inference' })
      const answer = await oauth.clientCredentialsGrantRequest(as, client, auth, asked, options)
      return oauth.processClientCredentialsResponse(as, client, answer)
    })
    const seen = await oauth.introspectionRequest(as, client, auth, tokens.access_token)
    const { active } = await oauth.processIntrospectionResponse(as, client, seen)
    return { kind: tokens.token_type, active, judged: await judged(all, given, tokens.access_token) }
  },
})
