// openid-client, certified by the OpenID Foundation, as its documentation has programs use it. Nothing is relaxed: no
// check is skipped, no insecure request allowed.
import * as client from 'openid-client'
import { person, refusal, serve } from './wire.mjs'

async function authentication(given) {
  if (given.jwk) {
    const key = { name: 'ECDSA', namedCurve: 'P-256' }
    return client.PrivateKeyJwt(await crypto.subtle.importKey('jwk', given.jwk, key, false, ['sign']))
  }
  if (!given.secret) return client.None()
  return given.post ? client.ClientSecretPost(given.secret) : client.ClientSecretBasic(given.secret)
}

async function configured(given) {
  const auth = await authentication(given)
  return client.discovery(new URL(given.issuer), given.client, undefined, auth, { algorithm: 'oauth2' })
}

async function proving(config, given) {
  if (!given.alg) return undefined
  return { DPoP: client.getDPoPHandle(config, await client.randomDPoPKeyPair(given.alg)) }
}

async function models(config, given, token, options) {
  const url = new URL('/v1/models', given.issuer)
  const answer = await client.fetchProtectedResource(config, token, url, 'GET', undefined, undefined, options)
  return [answer.status, (await answer.json()).object]
}

async function signedIn(config, given, options) {
  const verifier = client.randomPKCECodeVerifier()
  const asked = {
    redirect_uri: 'http://127.0.0.1:51234/callback',
    scope: 'inference',
    resource: `${given.issuer}/v1`,
    state: client.randomState(),
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
  }
  if (options && !given.push) asked.dpop_jkt = await options.DPoP.calculateThumbprint()
  const page = given.push
    ? await client.buildAuthorizationUrlWithPAR(config, asked, options)
    : client.buildAuthorizationUrl(config, asked)
  const back = new URL(await person({ authorize: page.href }))
  const checks = { pkceCodeVerifier: verifier, expectedState: asked.state }
  return { back, checks, tokens: await client.authorizationCodeGrant(config, back, checks, undefined, options) }
}

await serve({
  async metadata(given) {
    const config = await configured(given)
    return config.serverMetadata()
  },

  async code(given) {
    const config = await configured(given)
    const options = await proving(config, given)
    const { back, checks, tokens } = await signedIn(config, given, options)
    const found = { kind: tokens.token_type, scope: tokens.scope, expires: tokens.expiresIn() }
    found.models = await models(config, given, tokens.access_token, options)
    const renewed = await client.refreshTokenGrant(config, tokens.refresh_token, undefined, options)
    found.rotated = renewed.refresh_token !== tokens.refresh_token
    found.renewed = await models(config, given, renewed.access_token, options)
    if (options) {
      const bare = () => client.refreshTokenGrant(config, renewed.refresh_token)
      found.bare = await refusal(bare)
      const other = await proving(config, given)
      found.other = await refusal(() => client.refreshTokenGrant(config, renewed.refresh_token, undefined, other))
    }
    await client.tokenRevocation(config, renewed.refresh_token)
    found.revoked = await refusal(() =>
      client.refreshTokenGrant(config, renewed.refresh_token, undefined, options),
    )
    const twice = () => client.authorizationCodeGrant(config, back, checks, undefined, options)
    found.twice = await refusal(twice)
    return found
  },

  async device(given) {
    const config = await configured(given)
    const options = await proving(config, given)
    const begun = await client.initiateDeviceAuthorization(config, { scope: 'inference' })
    await person({ device: begun.user_code })
    // The person has decided already: nobody needs to wait the five seconds between two questions.
    const soon = { ...begun, interval: 0.1 }
    const tokens = await client.pollDeviceAuthorizationGrant(config, soon, undefined, options)
    return { kind: tokens.token_type, models: await models(config, given, tokens.access_token, options) }
  },

  async credentials(given) {
    const config = await configured(given)
    const options = await proving(config, given)
    const tokens = await client.clientCredentialsGrant(config, { scope: 'inference' }, options)
    const found = { kind: tokens.token_type, refresh: tokens.refresh_token ?? null }
    found.models = await models(config, given, tokens.access_token, options)
    const seen = await client.tokenIntrospection(config, tokens.access_token)
    found.seen = { active: seen.active, client: seen.client_id, scope: seen.scope, jkt: seen.cnf?.jkt ?? null }
    await client.tokenRevocation(config, tokens.access_token)
    found.after = (await client.tokenIntrospection(config, tokens.access_token)).active
    return found
  },

  async exchange(given) {
    const config = await configured(given)
    const options = await proving(config, given)
    const grant = 'urn:ietf:params:oauth:grant-type:token-exchange'
    const asked = { subject_token: given.token, subject_token_type: 'urn:ietf:params:oauth:token-type:id_token' }
    const tokens = await client.genericGrantRequest(config, grant, asked, options)
    const found = { kind: tokens.token_type, issued: tokens.issued_token_type }
    found.models = await models(config, given, tokens.access_token, options)
    const forged = { ...asked, subject_token: given.forged }
    found.forged = await refusal(() => client.genericGrantRequest(config, grant, forged, options))
    return found
  },
})
